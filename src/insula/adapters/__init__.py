"""The ports of the engine, over real things."""
