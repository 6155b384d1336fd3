"""The trainer's side: emitter, spool and snapshots."""
