"""AWS in the lab: pure domain logic here, the emulator adapter in :mod:`harness.cloud.localstack`."""
