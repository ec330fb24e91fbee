//! The classifier from outside: against a linear table, over versions, and how wide its wildcards are.

mod model;
mod oracle;
mod versions;
mod width;
