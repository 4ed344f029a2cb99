"""For all tests: generated examples are judged by what they show, not by how fast a shared machine is."""

from hypothesis import HealthCheck, settings

settings.register_profile("workspace", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("workspace")
