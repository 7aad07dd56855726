"""Ctrl-C, SIGTERM and SIGHUP, sent for real; an output that is lost."""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest
from support.paths import ROOT

from slimtune.core.streams import OutputLost
from slimtune.data.chat_template import ChatTokenizer
from slimtune.data.records import Conversation, Message
from slimtune.train.safeguards.interrupts import STOPPING, Interrupts

pytestmark = pytest.mark.unsloth


@pytest.fixture(autouse=True)
def handlers():
    """Python's own handlers, whatever started the tests (a background job ignores SIGINT); put back afterwards."""
    earlier = {number: signal.getsignal(number) for number in STOPPING}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    for number, handler in earlier.items():
        signal.signal(number, handler)


def send(number):
    os.kill(os.getpid(), number)


# A training loop in ten lines, in a process of its own: what a shell sees.
LOOP = """
import os, signal, sys
from types import SimpleNamespace
from slimtune.train.safeguards.interrupts import Interrupts

where, *numbers = sys.argv[1:]
interrupts = Interrupts(lambda line: print(line, flush=True))
args = SimpleNamespace(load_best_model_at_end=True, save_total_limit=1)
state, control = SimpleNamespace(global_step=0), SimpleNamespace(should_training_stop=False, should_save=False)

def come(name):
    if name == where:
        for number in numbers:
            os.kill(os.getpid(), int(number))

try:
    with interrupts:
        come("loading")
        with interrupts.training():
            while state.global_step < 5 and not control.should_training_stop:
                if state.global_step == 2:
                    come("step")
                state.global_step += 1
                interrupts.stop_if_asked(args, state, control)
                if control.should_save:
                    print("saved", state.global_step, flush=True)
        come("export")
        print("ended", state.global_step, flush=True)
except KeyboardInterrupt:
    print("quit", state.global_step, flush=True)
assert not {"torch", "transformers"} & set(sys.modules)
sys.exit(interrupts.exit_code)
"""
INT, TERM, HUP = (str(int(number)) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP))


@pytest.mark.parametrize(
    ("arguments", "code", "lines"),
    [
        (["nowhere"], 0, ["ended 5"]),
        (["step", INT], 130, [STOPPING[signal.SIGINT], "saved 3", "ended 3"]),
        (["step", TERM], 143, [STOPPING[signal.SIGTERM], "saved 3", "ended 3"]),
        (["step", INT, INT], 130, [STOPPING[signal.SIGINT], "quit 2"]),
        (["step", TERM, TERM], 143, [STOPPING[signal.SIGTERM]]),
        (["step", INT, TERM], 143, [STOPPING[signal.SIGINT]]),
        (["loading", INT], 130, ["quit 0"]),
        (["loading", TERM], 143, []),
        (["step", HUP], 129, [STOPPING[signal.SIGHUP], "saved 3", "ended 3"]),
        (["loading", HUP], 129, []),
        (["export", INT], 130, ["quit 5"]),
    ],
)
def test_what_a_shell_sees(arguments, code, lines):
    done = subprocess.run([sys.executable, "-c", LOOP, *arguments], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout.splitlines()) == (code, lines), done.stderr


def test_earlier_handlers_come_back_also_after_an_exception():
    def mine(number, frame):
        pass

    signal.signal(signal.SIGTERM, mine)
    with pytest.raises(ZeroDivisionError), Interrupts(print):
        assert signal.getsignal(signal.SIGINT) not in (signal.default_int_handler, mine)
        assert signal.getsignal(signal.SIGTERM) is not mine
        raise ZeroDivisionError
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert signal.getsignal(signal.SIGTERM) is mine


def test_an_ignored_signal_stays_ignored():
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with Interrupts(print) as interrupts:
        send(signal.SIGINT)
    assert interrupts.received is None
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN


def test_in_another_thread_it_does_nothing_and_says_nothing():
    said, seen = [], []

    def work():
        with Interrupts(said.append) as interrupts, interrupts.training():
            seen.append((signal.getsignal(signal.SIGINT), interrupts.received, interrupts.exit_code))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [(signal.default_int_handler, None, None)]
    assert said == []


def test_a_line_that_the_handler_could_not_write_is_said_at_the_end_of_the_step():
    """CPython refuses a write to a buffered stream from a handler that interrupted a write to it."""
    said = []

    def say(line):
        said.append(line)
        if len(said) == 1:
            raise RuntimeError("reentrant call inside <_io.BufferedWriter name='<stdout>'>")

    args = SimpleNamespace(load_best_model_at_end=False, save_total_limit=2)
    control = SimpleNamespace(should_training_stop=False, should_save=False)
    with Interrupts(say) as interrupts, interrupts.training():
        send(signal.SIGINT)
        for step in (1, 1):
            interrupts.stop_if_asked(args, SimpleNamespace(global_step=step), control)
    assert said == [STOPPING[signal.SIGINT]] * 2
    assert (control.should_training_stop, control.should_save) == (True, True)


@pytest.fixture(scope="module")
def examples(tiny_model):
    tokenizer = ChatTokenizer(tiny_model("qwen3"))
    rows = [Conversation((Message("user", f"第{n}条は。"), Message("assistant", "abcd"[n % 4]))) for n in range(12)]
    return [example for row in rows for example in tokenizer.examples(row)]


def adapter(model):
    return {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}


def same(one, other):
    return one.keys() == other.keys() and all((one[name] == other[name]).all() for name in one)


@pytest.fixture
def trainer(make_trainer, examples):
    """Six steps, evaluated and saved at each, the first of them always the best; only one checkpoint is kept."""
    built = make_trainer(
        "qwen3",
        examples,
        examples[:2],
        per_device_train_batch_size=1,
        gradient_accumulation_steps=2,
        eval_steps=1,
        save_steps=1,
        save_total_limit=1,
        cpu_threads=1,
    )
    inner = built.evaluation_loop

    def worse_each_time(*args, **kwargs):
        output = inner(*args, **kwargs)
        output.metrics["eval_loss"] = 1.0 + built.state.global_step
        return output

    built.evaluation_loop = worse_each_time
    return built


def signalling(event, step, kept):
    """A callback that sends SIGINT at `event` once `step` steps are done, and keeps the adapter after each step."""
    from transformers import TrainerCallback

    class Signalling(TrainerCallback):
        def on_step_end(self, args, state, control, model=None, **kwargs):
            kept[state.global_step] = adapter(model)

    def at(self, args, state, control, **kwargs):
        if state.global_step == step and not kept.get("sent"):
            kept["sent"] = True
            send(signal.SIGINT)

    return type("At", (Signalling,), {event: at})()


def checkpoints(trainer):
    return sorted(path.name for path in Path(trainer.args.output_dir).glob("checkpoint-*"))


@pytest.mark.parametrize(
    ("event", "done", "last"),
    [
        ("on_substep_end", 2, 3),  # in the middle of a step: it is finished
        pytest.param("on_prediction_step", 3, 3, marks=pytest.mark.fault),  # in an evaluation: no further step begins
        pytest.param("on_save", 3, 3, marks=pytest.mark.fault),  # while saving
    ],
)
def test_the_step_is_finished_saved_and_is_what_the_model_keeps(trainer, event, done, last):
    kept, said = {}, []
    with Interrupts(said.append) as interrupts:
        trainer.add_callback(signalling(event, done, kept))
        trainer.add_callback(interrupts.callback)
        with interrupts.training():
            trainer.train()
    assert (interrupts.received, interrupts.exit_code) == (signal.SIGINT, 130)
    assert said == [STOPPING[signal.SIGINT]]
    assert trainer.state.global_step == last
    # The interrupted step is neither exchanged for the best one (step 1) nor deleted in its favour.
    assert same(adapter(trainer.model), kept[last])
    assert not same(kept[1], kept[last])
    assert checkpoints(trainer) == ["checkpoint-1", f"checkpoint-{last}"]
    # Every evaluation that was due is there, so that a resumed run has the same ones.
    evaluated = [entry["step"] for entry in trainer.state.log_history if "eval_loss" in entry]
    assert evaluated == list(range(1, last + 1))
    assert (trainer.args.load_best_model_at_end, trainer.args.save_total_limit) == (True, 1)


@pytest.mark.fault
@pytest.mark.parametrize("event", ["on_prediction_step", "on_log"])
def test_a_step_that_no_checkpoint_was_due_for_is_saved_too(trainer, event):
    """The signal comes after on_step_end, during the step's log or its evaluation."""
    trainer.args.save_steps = 6
    kept = {}
    with Interrupts(lambda line: None) as interrupts:
        trainer.add_callback(signalling(event, 3, kept))
        trainer.add_callback(interrupts.callback)
        with interrupts.training():
            trainer.train()
    assert trainer.state.global_step == 3
    assert checkpoints(trainer) == ["checkpoint-3"]
    assert same(adapter(trainer.model), kept[3])


@pytest.mark.fault
def test_an_undisturbed_run_loads_its_best_step(trainer):
    kept = {}
    with Interrupts(pytest.fail) as interrupts:
        trainer.add_callback(signalling("on_save", -1, kept))
        trainer.add_callback(interrupts.callback)
        with interrupts.training():
            trainer.train()
    assert interrupts.exit_code is None
    assert trainer.state.global_step == 6
    assert same(adapter(trainer.model), kept[1])
    assert checkpoints(trainer) == ["checkpoint-1"]


@pytest.mark.fault
def test_a_second_signal_leaves_training_in_the_middle_of_the_step(trainer):
    kept = {}
    with Interrupts(lambda line: send(signal.SIGINT)) as interrupts:
        trainer.add_callback(signalling("on_substep_end", 2, kept))
        trainer.add_callback(interrupts.callback)
        with pytest.raises(KeyboardInterrupt), interrupts.training():
            trainer.train()
    assert interrupts.exit_code == 130
    assert trainer.state.global_step == 2
    assert same(adapter(trainer.model), kept[2])
    assert (trainer.args.load_best_model_at_end, trainer.args.save_total_limit) == (True, 1)


def lost():
    return OutputLost(BrokenPipeError(32, "Broken pipe"))


def test_a_lost_output_waits_for_the_step_while_training_and_is_raised_at_once_otherwise():
    interrupts = Interrupts(print)
    with pytest.raises(OutputLost):
        interrupts.output_lost(lost())
    interrupts = Interrupts(print)
    args = SimpleNamespace(load_best_model_at_end=True, save_total_limit=1)
    state, control = SimpleNamespace(global_step=3), SimpleNamespace(should_training_stop=False, should_save=False)
    with interrupts.training():
        interrupts.output_lost(lost())
        interrupts.stop_if_asked(args, state, control)
    assert control.should_training_stop and control.should_save
    with pytest.raises(OutputLost) as ended:
        interrupts.end_if_asked()
    assert ended.value.code == 141


def test_after_a_signal_a_lost_output_changes_nothing():
    with Interrupts(lambda line: None) as interrupts:
        with interrupts.training():
            send(signal.SIGHUP)
        interrupts.output_lost(lost())
        with pytest.raises(SystemExit) as ended:
            interrupts.end_if_asked()
    assert ended.value.code == 129
