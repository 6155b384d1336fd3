// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

/// @title A write-once register of 32-byte hashes.
/// @notice The first write of a hash wins. Writing it again succeeds, changes nothing and
/// emits nothing, so that a repeated anchor is harmless and can move neither the time nor
/// the submitter nor the metadata. There is no owner, no upgrade and no way to delete.
contract MLProvenance {
    /// @dev 20 + 6 + 6 bytes: one storage slot. 48 bits of seconds last for 8.9 million years.
    struct Entry {
        address submitter;
        uint48 timestamp;
        uint48 blockNumber;
    }

    uint256 public constant MAX_METADATA_BYTES = 256;

    mapping(bytes32 => Entry) private entries;
    mapping(bytes32 => string) private notes;

    event HashStored(bytes32 indexed hash, address indexed submitter, uint64 timestamp, string metadata);

    error ZeroHash();
    error MetadataTooLong(uint256 length);

    /// @param hash What to register; not zero.
    /// @param metadata Up to 256 bytes; an empty string costs no storage.
    function storeHash(bytes32 hash, string calldata metadata) external {
        if (hash == bytes32(0)) revert ZeroHash();
        if (bytes(metadata).length > MAX_METADATA_BYTES) revert MetadataTooLong(bytes(metadata).length);
        if (entries[hash].submitter != address(0)) return;
        entries[hash] = Entry(msg.sender, uint48(block.timestamp), uint48(block.number));
        if (bytes(metadata).length != 0) notes[hash] = metadata;
        emit HashStored(hash, msg.sender, uint64(block.timestamp), metadata);
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
    /// @return submitter Who stored it first.
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

    function parent(bytes32 left, bytes32 right) private pure returns (bytes32) {
        return sha256(abi.encodePacked(bytes1(0x01), left, right));
    }
}
