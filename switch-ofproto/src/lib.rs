//! The OpenFlow pipeline without IO: bridges, tables, translation, MAC learning.
