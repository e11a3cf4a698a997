"""Connections of an app: how its workflows reach model providers and services, keys unseen."""
