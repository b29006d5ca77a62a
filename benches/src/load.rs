//! What puts work on a path, and checks that the work was done.

pub(crate) mod bulk;
pub(crate) mod churn;
pub(crate) mod cold;
pub(crate) mod h2load;
pub(crate) mod hold;
pub(crate) mod idle;
pub(crate) mod paced;
pub(crate) mod wrk;
