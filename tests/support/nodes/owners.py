"""Three owners of a k-of-n key, on Ethereum and on Bitcoin."""

from __future__ import annotations

import hashlib
from dataclasses import replace

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from eth_account import Account
from eth_keys.datatypes import PrivateKey

from provenance.chains.bitcoin.rpc import BitcoinRpc, Value
from provenance.chains.ethereum.multisig import ordered, sign
from provenance.formats.fields import Fields
from provenance.proofs.bitcoin import parse_transaction
from provenance.proofs.multisig.bitcoin import Script, sized, spend_digest
from provenance.proofs.multisig.ethereum import StoreRequest
from provenance.proofs.multisig.psbt import Psbt
from provenance.settings import BitcoinSettings

SECRETS = (0xA11CE, 0xB0B, 0xCA401)
ETHEREUM_KEYS = tuple(f"{secret:064x}" for secret in SECRETS)
ADDRESSES = tuple(str(Account.from_key(key).address) for key in ETHEREUM_KEYS)


def public_key(secret: int) -> bytes:
    """Compressed."""
    key = ec.derive_private_key(secret, ec.SECP256K1()).public_key()
    return key.public_bytes(Encoding.X962, PublicFormat.CompressedPoint)


def wif(secret: int) -> str:
    """As a test network's wallet imports it: base58check of EF, the secret and 01."""
    body = b"\xef" + secret.to_bytes(32, "big") + b"\x01"
    body += hashlib.sha256(hashlib.sha256(body).digest()).digest()[:4]
    number, text = int.from_bytes(body, "big"), ""
    while number:
        number, digit = divmod(number, 58)
        text = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"[digit] + text
    return text


BITCOIN_KEYS = tuple(map(public_key, SECRETS))


def ethereum_signatures(request: StoreRequest, *numbers: int) -> tuple[bytes, ...]:
    """Of some of the owners, as the contract takes them."""
    return ordered(request, [sign(request, ETHEREUM_KEYS[number]) for number in numbers])


def coin(script: Script, value: int = 50_000_000) -> bytes:
    """A transaction that pays to the script."""
    body = b"\x02\0\0\0\x01" + b"\x11" * 32 + b"\0\0\0\0\0\xfd\xff\xff\xff\x01"
    return body + value.to_bytes(8, "little") + sized(script.output) + bytes(4)


def psbt_of(
    payload: bytes,
    script: Script,
    *,
    fee: int = 410,
    made: bytes | None = None,
    outputs: tuple[tuple[int, bytes], ...] | None = None,
) -> Psbt:
    """What the watching wallet makes: the payload, and change to the script."""
    made = coin(script) if made is None else made
    paying = parse_transaction(made).outputs
    vout = next((at for at, each in enumerate(paying) if each.script == script.output), 0)
    value = paying[vout].value
    data = (0, b"\x6a\x24" + payload)
    outputs = (data, (value - fee, script.output)) if outputs is None else outputs
    point = parse_transaction(made).txid + vout.to_bytes(4, "little")
    body = b"\x02\0\0\0\x01" + point + b"\0\xfd\xff\xff\xff"
    body += bytes([len(outputs)])
    for amount, to in outputs:
        body += amount.to_bytes(8, "little") + sized(to)
    transaction = parse_transaction(body + bytes(4))
    head = {b"\x00": transaction.stripped}
    return Psbt(transaction, (made,), head, ({b"\x00": made},), tuple({} for _ in outputs))


def cosigned(psbt: Psbt, script: Script, *numbers: int) -> Psbt:
    """With signatures of some of the owners."""
    vout = psbt.transaction.inputs[0].vout
    value = parse_transaction(psbt.spent[0]).outputs[vout].value
    digest = spend_digest(psbt.transaction, 0, script, value)
    fields = dict(psbt.inputs[0])
    for number in numbers:
        signature = PrivateKey(SECRETS[number].to_bytes(32, "big")).sign_msg_hash(digest)
        der = encode_dss_signature(signature.r, signature.s)
        fields[b"\x02" + BITCOIN_KEYS[number]] = der + b"\x01"
    return replace(psbt, inputs=(fields,))


def owner_wallet(settings: BitcoinSettings, number: int) -> None:
    """Make the wallet that the settings name, with the key of an owner at an address of its own."""
    rpc = BitcoinRpc(settings)
    rpc.call("createwallet", settings.wallet, False, True)
    bare = f"wpkh({wif(SECRETS[number])})"
    told = rpc.read(Fields.object, "getdescriptorinfo", bare)
    request: Value = [{"desc": f"{bare}#{told.text('checksum')}", "timestamp": "now"}]
    rpc.call("importdescriptors", request, wallet=True)
