//! Nodes and a real NATS server. The guests sleep, so that several nodes are faster although the machine
//! has few cores.

mod deep;
mod graphs;
mod inputs;
mod machine;
mod outages;
mod processes;
mod protocol;
mod security;
mod sharing;
