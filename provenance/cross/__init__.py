"""One chain's word for another's: Ethereum checks what Bitcoin carries."""
