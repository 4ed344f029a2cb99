"""Carries plans out: pods, claims and bindings become containers, networks and volumes through providers."""
