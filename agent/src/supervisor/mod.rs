//! `jobcred run`: a small process that starts the agent and COMMAND, forwards signals and keeps the exit status.
