//! The `jobcred` command.

fn main() {}
