"""Ethereum: heads in the contract or as calldata, through web3.py."""
