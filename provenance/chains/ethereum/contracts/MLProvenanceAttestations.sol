// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

/// @title Whether a root is verified again on time.
/// @notice Whoever registers a root names, once and for all, how often it is to be verified and by
/// whom. Each registrar has an own register, so that nobody can take a root from another: a reader
/// names the registrar that counts. There is no owner, no upgrade and no way to delete.
contract MLProvenanceAttestations {
    /// @dev 4 + 6 + 6 + 1 bytes: one storage slot. 48 bits of seconds last for 8.9 million years.
    struct Watch {
        uint32 interval;
        uint48 registered;
        uint48 last;
        uint8 outcome;
    }

    uint256 public constant MAX_VERIFIERS = 16;
    uint8 public constant MAX_OUTCOME = 4;

    mapping(address => mapping(bytes32 => Watch)) private watches;
    mapping(address => mapping(bytes32 => mapping(address => bool))) private named;

    event Registered(bytes32 indexed root, address indexed registrar, uint32 interval, address[] verifiers);
    event Attested(
        bytes32 indexed root, address indexed registrar, address indexed verifier, uint8 outcome, uint64 time
    );

    error ZeroRoot();
    error ZeroInterval();
    error AlreadyRegistered();
    error VerifierCount(uint256 found);
    error NotRegistered();
    error NotVerifier(address sender);
    error NoOutcome(uint8 found);

    /// @param root A run root; not zero.
    /// @param interval Seconds within which each attestation must follow the one before.
    /// @param verifiers 1 to 16 accounts that may attest.
    function register(bytes32 root, uint32 interval, address[] calldata verifiers) external {
        if (root == bytes32(0)) revert ZeroRoot();
        if (interval == 0) revert ZeroInterval();
        if (verifiers.length == 0 || verifiers.length > MAX_VERIFIERS) revert VerifierCount(verifiers.length);
        Watch storage watch = watches[msg.sender][root];
        if (watch.registered != 0) revert AlreadyRegistered();
        watch.interval = interval;
        watch.registered = uint48(block.timestamp);
        for (uint256 i = 0; i < verifiers.length; i++) {
            named[msg.sender][root][verifiers[i]] = true;
        }
        emit Registered(root, msg.sender, interval, verifiers);
    }

    /// @param outcome 1 verified, 2 anchored, 3 consistent, 4 failed.
    function attest(address registrar, bytes32 root, uint8 outcome) external {
        if (outcome == 0 || outcome > MAX_OUTCOME) revert NoOutcome(outcome);
        Watch storage watch = watches[registrar][root];
        if (watch.registered == 0) revert NotRegistered();
        if (!named[registrar][root][msg.sender]) revert NotVerifier(msg.sender);
        watch.last = uint48(block.timestamp);
        watch.outcome = outcome;
        emit Attested(root, registrar, msg.sender, outcome, uint64(block.timestamp));
    }

    /// @notice Whether the last attestation, or the registration where there is none, is older than
    /// the interval.
    function overdue(address registrar, bytes32 root) external view returns (bool) {
        Watch storage watch = watches[registrar][root];
        if (watch.registered == 0) revert NotRegistered();
        uint48 since = watch.last == 0 ? watch.registered : watch.last;
        return block.timestamp > uint256(since) + watch.interval;
    }

    function isVerifier(address registrar, bytes32 root, address account) external view returns (bool) {
        return named[registrar][root][account];
    }

    /// @return interval Seconds; 0 where the root is not registered.
    /// @return registered Unix time.
    /// @return time Unix time of the last attestation; 0 without one.
    /// @return outcome Of the last attestation; 0 without one.
    function last(address registrar, bytes32 root)
        external
        view
        returns (uint32 interval, uint64 registered, uint64 time, uint8 outcome)
    {
        Watch storage watch = watches[registrar][root];
        return (watch.interval, watch.registered, watch.last, watch.outcome);
    }
}
