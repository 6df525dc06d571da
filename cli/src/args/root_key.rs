//! `admin root-key …`.

use clap::Subcommand;

#[derive(Debug, Subcommand)]
pub enum RootKeyCommand {
    /// Make a root key for /v2; its secret is shown once
    Create {
        /// Whose apis and keys it manages (id or email)
        #[arg(long, value_name = "ID_OR_EMAIL")]
        account: String,
        /// What it may do, such as api.*.create_key or api.API_ID.verify_key; may be given several times
        /// [default: everything]
        #[arg(long = "permission", value_name = "PERMISSION")]
        permissions: Vec<String>,
        /// A name for it
        #[arg(long, default_value = "root key")]
        name: String,
    },
    /// List root keys that are not deleted
    List {
        /// Of this account only (id or email)
        #[arg(long, value_name = "ID_OR_EMAIL")]
        account: Option<String>,
    },
    /// Delete a root key: the next request with it is refused
    Delete {
        /// The root key's id (rootkey_…)
        id: String,
    },
}
