"""Talking to a node's API from outside: where it is, who we are, requests and streams."""
