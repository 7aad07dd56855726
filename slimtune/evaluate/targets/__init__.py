"""What answers an evaluation: a model in this process, llama.cpp, or a server; target.py says what is asked of them."""
