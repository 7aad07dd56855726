import time, torch
def test_it(tiny_model, a_plan, tmp_path):
    from slimtune import model as models
    from slimtune.train import sft
    from slimtune.data.chat import ChatTokenizer
    from slimtune.data.types import Conversation, Message
    tokenizer = ChatTokenizer(tiny_model("qwen3"))
    turns = [(f"第{n}条は。" * (1 + 5 * n % 7), "abcd"[n % 4] * (1 + n % 3)) for n in range(21)]
    rows = [Conversation((Message("user", asked), Message("assistant", answer))) for asked, answer in turns]
    ex = [example for row in rows for example in tokenizer.examples(row)]
    for kw in (dict(), dict(load_in_4bit=False), dict(load_in_4bit=False, gradient_checkpointing=False)):
      for i in range(2):
        plan = a_plan(precision="fp32", cpu_threads=1, per_device_train_batch_size=5, gradient_accumulation_steps=2, epochs=1, logging_steps=1, save_steps=1000, **kw); print(kw, plan.gradient_checkpointing)
        t=time.process_time(); model, tok = models.load(tiny_model("qwen3"), plan); print("load", time.process_time()-t)
        t=time.process_time(); model = models.add_lora(model, plan); print("lora", time.process_time()-t)
        t=time.process_time(); tr = sft.build_trainer(model, tok, ex, (), plan, directory=tmp_path); print("build", time.process_time()-t)
        t=time.process_time(); tr.train(); print("train", time.process_time()-t)
    import cProfile, pstats
    tr = sft.build_trainer(model, tok, ex, (), plan, directory=tmp_path)
    pr = cProfile.Profile(); pr.enable(); tr.train(); pr.disable()
    pstats.Stats(pr).sort_stats("tottime").print_stats(18)
