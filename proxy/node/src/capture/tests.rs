//! Capture against an agent that speaks the real protocol over a real socket, with real sockets.
