"""Actor-critic networks around any body, PPO and generalised advantage estimation, as PyTorch modules and a torchrl loss."""
