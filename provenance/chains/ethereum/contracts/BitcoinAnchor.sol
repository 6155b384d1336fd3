// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

/// @dev What MLProvenance tells of a hash.
interface IRegister {
    function getHashInfo(bytes32 hash)
        external
        view
        returns (bool exists, address submitter, uint64 timestamp, uint64 blockNumber, string memory metadata);
}

/// @title Bitcoin's proof that it carries a root, checked by Ethereum.
/// @notice It keeps nothing, knows no chain and has no owner. That headers are the chain's, only
/// their work can tell: it is what a forger has to pay, and the caller names how much is enough.
/// @dev Hashes of Bitcoin are in its internal order, but for block hashes that are returned: they
/// stand as people write them. Numbers of Bitcoin are little-endian.
contract BitcoinAnchor {
    /// @param transaction Without witness (BIP 144).
    /// @param index Of the transaction in its block, from 0.
    /// @param path Its siblings up to the Merkle root, lowest first.
    /// @param headers The block's, 80 bytes, and those that build on it, in order.
    struct Proof {
        bytes transaction;
        uint256 index;
        bytes32[] path;
        bytes headers;
    }

    /// @dev 16,666 transactions of 60 bytes fill a block.
    uint256 private constant MAX_PATH = 15;
    uint256 private constant HEADER_BYTES = 80;
    /// @dev OP_RETURN, a push of 36 bytes, "MLP1".
    bytes6 private constant SCRIPT = 0x6a244d4c5031;
    uint256 private constant SCRIPT_BYTES = 38;

    /// @dev An inner node of a Merkle tree has 64 bytes, too (CVE-2017-12842).
    error NodeSizedTransaction();
    error NoTransaction(uint256 at);
    error NotOnePayload(uint256 found);
    error OtherRoot(bytes32 found);
    error PathTooLong(uint256 length);
    /// @dev A left sibling that equals its right one makes a second index (CVE-2012-2459).
    error AmbiguousPath(uint256 level);
    error NoSuchIndex(uint256 index);
    error NotInBlock(bytes32 merkleRoot);
    error NoHeaders(uint256 length);
    error NotLinked(uint256 header);
    error NoWork(uint256 header);
    error TooLittleWork(uint256 work, uint256 minimum);
    error NotRegistered(address register, bytes32 root);

    /// @notice That the register holds a root, and a block of Bitcoin as well.
    /// @param register An MLProvenance contract.
    /// @return blockHash Of the block that holds the transaction.
    /// @return time Of that block's header, seconds since 1970: a miner may be two hours off.
    /// @return work Hashes that the headers took on average, all together.
    /// @return registered Block time of the register's first store, seconds since 1970.
    function confirmed(address register, bytes32 root, Proof calldata proof, uint256 minimumWork)
        external
        view
        returns (bytes32 blockHash, uint64 time, uint256 work, uint64 registered)
    {
        (blockHash, time, work) = anchored(root, proof, minimumWork);
        bool exists;
        if (register.code.length != 0) (exists,, registered,,) = IRegister(register).getHashInfo(root);
        if (!exists) revert NotRegistered(register, root);
    }

    /// @notice That a block of Bitcoin holds a transaction that carries a root.
    /// @return As of {confirmed}.
    function anchored(bytes32 root, Proof calldata proof, uint256 minimumWork)
        public
        pure
        returns (bytes32, uint64, uint256)
    {
        (uint256 payloads, bytes32 found) = payload(proof.transaction);
        if (payloads != 1) revert NotOnePayload(payloads);
        if (found != root) revert OtherRoot(found);
        return included(proof, minimumWork);
    }

    /// @notice That a block of Bitcoin holds a transaction, whatever it carries.
    /// @return blockHash As of {confirmed}.
    /// @return time As of {confirmed}.
    /// @return work As of {confirmed}.
    function included(Proof calldata proof, uint256 minimumWork)
        public
        pure
        returns (bytes32 blockHash, uint64 time, uint256 work)
    {
        payload(proof.transaction);
        bytes calldata headers = proof.headers;
        uint256 length = headers.length;
        if (length == 0 || length % HEADER_BYTES != 0) revert NoHeaders(length);
        bytes32 root = merkleRoot(proof);
        if (root != bytes32(headers[36:68])) revert NotInBlock(root);
        bytes32 previous;
        for (uint256 i = 0; i < length / HEADER_BYTES; i++) {
            bytes calldata header = headers[i * HEADER_BYTES:(i + 1) * HEADER_BYTES];
            if (i != 0 && bytes32(header[4:36]) != previous) revert NotLinked(i);
            previous = twice(header);
            uint256 value = reversed(uint256(previous));
            uint256 target = targetOf(number(header, 72, 4));
            if (target == 0 || value > target) revert NoWork(i);
            work += ~target / (target + 1) + 1;
            if (i == 0) (blockHash, time) = (bytes32(value), uint64(number(header, 68, 4)));
        }
        if (work < minimumWork) revert TooLittleWork(work, minimumWork);
    }

    /// @dev Reads a transaction to its last byte; how many outputs carry a root, and the last.
    function payload(bytes calldata data) private pure returns (uint256 found, bytes32 root) {
        if (data.length == 64) revert NodeSizedTransaction();
        uint256 count;
        uint256 size;
        uint256 at = 4;
        (count, at) = compact(data, at);
        if (count == 0) revert NoTransaction(at); // as with a witness: marker and flag
        for (; count != 0; count--) {
            (size, at) = compact(data, at + 36);
            at += size + 4;
        }
        (count, at) = compact(data, at);
        if (count == 0) revert NoTransaction(at);
        for (; count != 0; count--) {
            (size, at) = compact(data, at + 8);
            if (size == SCRIPT_BYTES && at + size <= data.length && bytes6(data[at:at + 6]) == SCRIPT) {
                found++;
                root = bytes32(data[at + 6:at + SCRIPT_BYTES]);
            }
            at += size;
        }
        if (at + 4 != data.length) revert NoTransaction(at);
    }

    /// @dev A CompactSize in its shortest form, as consensus demands; none of 8 bytes fits here.
    function compact(bytes calldata data, uint256 at) private pure returns (uint256 size, uint256 next) {
        size = number(data, at, 1);
        if (size < 0xfd) return (size, at + 1);
        uint256 width = size == 0xfd ? 2 : 4;
        bool large = size == 0xff;
        size = number(data, at + 1, width);
        if (large || size < (width == 2 ? 0xfd : 0x10000)) revert NoTransaction(at);
        return (size, at + 1 + width);
    }

    function number(bytes calldata data, uint256 at, uint256 width) private pure returns (uint256 value) {
        if (at + width > data.length) revert NoTransaction(at);
        for (uint256 i = width; i != 0; i--) {
            value = value << 8 | uint8(data[at + i - 1]);
        }
    }

    function merkleRoot(Proof calldata proof) private pure returns (bytes32 node) {
        uint256 index = proof.index;
        uint256 length = proof.path.length;
        if (length > MAX_PATH) revert PathTooLong(length);
        if (index >> length != 0) revert NoSuchIndex(index);
        node = twice(proof.transaction);
        for (uint256 i = 0; i < length; i++) {
            bytes32 sibling = proof.path[i];
            if (index >> i & 1 == 0) {
                node = twice(abi.encodePacked(node, sibling));
            } else {
                if (sibling == node) revert AmbiguousPath(i);
                node = twice(abi.encodePacked(sibling, node));
            }
        }
    }

    /// @dev 0 for a negative one, and for one above what any chain of Bitcoin's code allows.
    function targetOf(uint256 bits) private pure returns (uint256) {
        uint256 exponent = bits >> 24;
        uint256 mantissa = bits & 0x007fffff;
        if (bits & 0x00800000 != 0 || exponent > 32) return 0;
        return exponent > 3 ? mantissa << 8 * (exponent - 3) : mantissa >> 8 * (3 - exponent);
    }

    function twice(bytes memory data) private pure returns (bytes32) {
        return sha256(abi.encodePacked(sha256(data)));
    }

    function reversed(uint256 value) private pure returns (uint256 result) {
        for (uint256 i = 0; i < 32; i++) {
            result = result << 8 | value >> 8 * i & 0xff;
        }
    }
}
