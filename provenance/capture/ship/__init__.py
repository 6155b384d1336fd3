"""The shipper: from the spool to the transport."""
