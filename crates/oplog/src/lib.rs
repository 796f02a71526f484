//! Oplog entries, transactions and segments.
