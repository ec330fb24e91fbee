//! The OpenFlow classifier.
