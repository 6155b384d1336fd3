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
}
