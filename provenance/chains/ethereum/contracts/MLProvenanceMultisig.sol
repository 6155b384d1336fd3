// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

/// @title A write-once register of 32-byte hashes that k of n owners sign for.
/// @notice A hash is stored only with EIP-712 signatures of `threshold()` distinct owners; who
/// sends them does not matter. The first write wins: the same signatures sent again succeed,
/// change nothing and emit nothing, so that the hash itself is the nonce. Owners and threshold
/// are fixed by the constructor; there is no upgrade and no way to delete. Views and event are
/// those of MLProvenance.
contract MLProvenanceMultisig {
    /// @dev 20 + 6 + 6 bytes: one storage slot. 48 bits of seconds last for 8.9 million years.
    struct Entry {
        address submitter;
        uint48 timestamp;
        uint48 blockNumber;
    }

    uint256 public constant MAX_METADATA_BYTES = 256;
    uint256 public constant MAX_OWNERS = 16;

    bytes32 private constant DOMAIN =
        keccak256("EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)");
    bytes32 private constant STORE_HASH = keccak256("StoreHash(bytes32 hash,string metadata,uint256 deadline)");
    /// @dev Half of secp256k1's order: of the two forms of a signature, the one with the lower s counts.
    uint256 private constant HALF_ORDER = 0x7FFFFFFFFFFFFFFFFFFFFFFFFFFFFFFF5D576E7357A4501DDFE92F46681B20A0;

    uint256 public threshold;
    address[] private members;
    mapping(address => bool) private isOwner;
    mapping(bytes32 => Entry) private entries;
    mapping(bytes32 => string) private notes;

    event HashStored(bytes32 indexed hash, address indexed submitter, uint64 timestamp, string metadata);

    error BadOwners();
    error BadThreshold(uint256 threshold);
    error ZeroHash();
    error MetadataTooLong(uint256 length);
    error Expired(uint256 deadline);
    error TooFewSignatures(uint256 found, uint256 expected);
    error BadSignature(uint256 index);
    error SignersNotAscending(uint256 index);
    error NotAnOwner(address signer);

    /// @param owners_ Strictly ascending, so that none is there twice; not zero; up to 16.
    /// @param threshold_ How many must sign, 1 to all.
    constructor(address[] memory owners_, uint256 threshold_) {
        if (owners_.length > MAX_OWNERS) revert BadOwners();
        if (threshold_ == 0 || threshold_ > owners_.length) revert BadThreshold(threshold_);
        address last = address(0);
        for (uint256 i = 0; i < owners_.length; i++) {
            if (owners_[i] <= last) revert BadOwners();
            last = owners_[i];
            isOwner[last] = true;
        }
        members = owners_;
        threshold = threshold_;
    }

    /// @param hash What to register; not zero.
    /// @param metadata Up to 256 bytes; an empty string costs no storage.
    /// @param deadline Unix seconds of the last block that may take these signatures.
    /// @param signatures r, s and v (27 or 28) of each, 65 bytes, by strictly ascending signer.
    function storeHash(bytes32 hash, string calldata metadata, uint256 deadline, bytes[] calldata signatures)
        external
    {
        if (hash == bytes32(0)) revert ZeroHash();
        if (bytes(metadata).length > MAX_METADATA_BYTES) revert MetadataTooLong(bytes(metadata).length);
        if (block.timestamp > deadline) revert Expired(deadline);
        if (signatures.length < threshold) revert TooFewSignatures(signatures.length, threshold);
        bytes32 digest = digestOf(hash, metadata, deadline);
        address last = address(0);
        for (uint256 i = 0; i < signatures.length; i++) {
            address signer = signerOf(digest, signatures[i]);
            if (signer == address(0)) revert BadSignature(i);
            if (signer <= last) revert SignersNotAscending(i);
            if (!isOwner[signer]) revert NotAnOwner(signer);
            last = signer;
        }
        if (entries[hash].submitter != address(0)) return;
        entries[hash] = Entry(msg.sender, uint48(block.timestamp), uint48(block.number));
        if (bytes(metadata).length != 0) notes[hash] = metadata;
        emit HashStored(hash, msg.sender, uint64(block.timestamp), metadata);
    }

    /// @return Ascending.
    function owners() external view returns (address[] memory) {
        return members;
    }

    function verifyHash(bytes32 hash) external view returns (bool) {
        return entries[hash].submitter != address(0);
    }

    /// @notice Whether a stored root is that of a log that holds an entry: RFC 9162, section
    /// 2.1.3.2, over SHA-256 with the prefixes of RFC 6962 (00 for a leaf, 01 for a node).
    /// @dev False for whatever does not fit; a proof that is too long ends after 256 steps.
    /// A root does not fix the size: where two sizes give an entry the same path, both hold.
    /// @param root Root of the log, as it was stored.
    /// @param leaf The entry: 32 bytes, not hashed yet.
    /// @param index Of the entry in the log, from 0.
    /// @param size Entries of the log.
    /// @param proof Siblings, lowest first.
    function verifyInclusion(bytes32 root, bytes32 leaf, uint256 index, uint256 size, bytes32[] calldata proof)
        external
        view
        returns (bool)
    {
        if (index >= size || entries[root].submitter == address(0)) return false;
        uint256 last = size - 1;
        bytes32 node = sha256(abi.encodePacked(bytes1(0x00), leaf));
        for (uint256 i = 0; i < proof.length; i++) {
            if (last == 0) return false;
            if (index & 1 == 1 || index == last) {
                node = parent(proof[i], node);
                while (index & 1 == 0 && index != 0) {
                    index >>= 1;
                    last >>= 1;
                }
            } else {
                node = parent(node, proof[i]);
            }
            index >>= 1;
            last >>= 1;
        }
        return last == 0 && node == root;
    }

    /// @return exists Whether the hash was ever stored; all else is zero where it was not.
    /// @return submitter Who sent it first.
    /// @return timestamp Block time of the first store, seconds since 1970.
    /// @return blockNumber Block of the first store.
    /// @return metadata What the first store carried.
    function getHashInfo(bytes32 hash)
        external
        view
        returns (bool exists, address submitter, uint64 timestamp, uint64 blockNumber, string memory metadata)
    {
        Entry storage entry = entries[hash];
        return (
            entry.submitter != address(0),
            entry.submitter,
            entry.timestamp,
            entry.blockNumber,
            notes[hash]
        );
    }

    /// @dev EIP-712; the domain names this chain and this contract.
    function digestOf(bytes32 hash, string calldata metadata, uint256 deadline) private view returns (bytes32) {
        bytes32 domain = keccak256(
            abi.encode(DOMAIN, keccak256("MLProvenanceMultisig"), keccak256("1"), block.chainid, address(this))
        );
        bytes32 message = keccak256(abi.encode(STORE_HASH, hash, keccak256(bytes(metadata)), deadline));
        return keccak256(abi.encodePacked(bytes2(0x1901), domain, message));
    }

    /// @dev Zero for whatever is no signature in its one form.
    function signerOf(bytes32 digest, bytes calldata signature) private pure returns (address) {
        if (signature.length != 65 || uint256(bytes32(signature[32:64])) > HALF_ORDER) return address(0);
        return ecrecover(digest, uint8(signature[64]), bytes32(signature[:32]), bytes32(signature[32:64]));
    }

    function parent(bytes32 left, bytes32 right) private pure returns (bytes32) {
        return sha256(abi.encodePacked(bytes1(0x01), left, right));
    }
}
