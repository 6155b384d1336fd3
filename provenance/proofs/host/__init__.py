"""What attests a host: quotes of its TPM, certificates of their key, the firmware's event log."""
