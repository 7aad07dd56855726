"""Quantises a GGUF with `llama_model_quantize` of a compiled libllama: FOLDER SOURCE OUT FILE_TYPE.

FOLDER: as npm's @node-llama-cpp/linux-x64 has it in bins/linux-x64, and LD_LIBRARY_PATH names it. A process of its own, since
xllamacpp holds another llama.cpp.
"""

import ctypes
import sys
from pathlib import Path


class Parameters(ctypes.Structure):
    """`llama_model_quantize_params` (llama.h): the two fields that are set, and room for the others."""

    _fields_ = [("nthread", ctypes.c_int32), ("ftype", ctypes.c_int), ("others", ctypes.c_byte * 256)]


folder, source, out, file_type = sys.argv[1:]


def library(pattern):
    return ctypes.CDLL(str(sorted(Path(folder).glob(pattern))[0]), mode=ctypes.RTLD_GLOBAL)


library("libggml-base.so*")
backends = library("libggml.*so*")
llama = library("libllama.*so*")
backends.ggml_backend_load_all_from_path(folder.encode())
llama.llama_model_quantize_default_params.restype = Parameters
parameters = llama.llama_model_quantize_default_params()
parameters.ftype, parameters.nthread = int(file_type), 2
sys.exit(llama.llama_model_quantize(source.encode(), out.encode(), ctypes.byref(parameters)))
