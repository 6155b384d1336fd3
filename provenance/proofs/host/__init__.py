"""What attests a host: TPM 2.0 quotes, the firmware's event log, certificates of attestation keys."""
