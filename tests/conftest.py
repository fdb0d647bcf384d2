"""What all tests share."""

from hypothesis import HealthCheck, settings

# A machine that builds at the same time is slow in bursts; a test that hangs is ended by pytest-timeout.
settings.register_profile("tulle", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("tulle")
