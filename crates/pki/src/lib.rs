//! The authority: root, intermediate, issuing, revocation. The only room that sees a CA key.
