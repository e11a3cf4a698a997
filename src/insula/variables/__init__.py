"""Variables of an app: values that its workflows share, and secrets that they may use unseen."""
