"""Handing a run's export to Ollama: create.py tells the story, the others know the server, its versions and the replay."""
