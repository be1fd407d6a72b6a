//! Depends on the dependencies of the workspace, so that they always have the same features. Has no
//! code.
