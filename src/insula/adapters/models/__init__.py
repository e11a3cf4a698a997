"""Model providers: the scripted ``mock``, and everything that speaks OpenAI's protocol."""
