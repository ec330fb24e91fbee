//! Tests that need a kernel, namespaces or guests.
