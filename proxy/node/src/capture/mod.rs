//! The proxy's side of capture: confined, it takes listeners and sockets inside the pods from the
//! agent and keeps serving whether the agent is there or not.

pub mod confine;
