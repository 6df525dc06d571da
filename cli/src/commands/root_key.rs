//! `listmill admin root-key …`: who may manage and verify the keys of an account's apis.

use std::collections::HashMap;

use anyhow::{Context as _, Result, bail};
use listmill_shared::app::App;
use listmill_shared::domain::audit::Origin;
use listmill_shared::domain::clock::rfc3339;
use listmill_shared::domain::id::{KeyId, RootKeyId};
use listmill_shared::domain::request::LastUse;
use listmill_shared::domain::root_key::RootKey;
use serde_json::{Value, json};

use super::admin::account;
use super::open_keyring;
use crate::args::RootKeyCommand;
use crate::output::Output;

/// Keys read in one go.
const PAGE: i64 = 1_000;

pub async fn run(app: &App, out: &Output, command: RootKeyCommand) -> Result<()> {
    match command {
        RootKeyCommand::Create { account: owner, permissions, name } => {
            let owner = account(app, &owner).await?;
            open_keyring(app).await?;
            let permissions = match permissions.is_empty() {
                true => vec![String::from("*")],
                false => permissions,
            };
            let (root, secret) =
                app.create_root_key(owner, &name, permissions, &Origin::operator()).await?;
            let secret = secret.reveal();
            out.object(&json!({ "root_key_id": root.id, "key": secret }))?;
            out.say(format!("{secret}\n"));
            out.say(format!(
                "root key {} ({name}); its secret is shown this once: keep it",
                root.id
            ));
            out.say(format!("it may do: {}", root.permissions.join(" ")));
            Ok(())
        }
        RootKeyCommand::List { account: owner } => {
            let owner = match owner {
                Some(owner) => Some(account(app, &owner).await?),
                None => None,
            };
            let mut keys: Vec<RootKey> = Vec::new();
            loop {
                let cursor = keys.last().map_or(RootKeyId::FIRST, |key| key.id);
                let page = app.store.root_keys(owner, cursor, PAGE).await?;
                let full = page.len() as i64 == PAGE;
                keys.extend(page);
                if !full {
                    break;
                }
            }
            let mut used = HashMap::new();
            for page in keys.chunks(PAGE as usize) {
                // They stand among the uses of keys with their own ids.
                let ids: Vec<KeyId> = page.iter().map(|key| KeyId(key.id.0)).collect();
                used.extend(app.store.last_used(&ids).await?);
            }
            show(out, &keys, &used)
        }
        RootKeyCommand::Delete { id } => {
            let id: RootKeyId = id.parse().with_context(|| {
                format!(
                    "{id:?}: wanted is a root key's id, as `listmill admin root-key list` shows it"
                )
            })?;
            if !app.delete_root_key(id, None, &Origin::operator()).await? {
                bail!("no root key {id}, or it is deleted");
            }
            out.object(&json!({ "root_key_id": id, "status": "deleted" }))?;
            out.say(format!("root key {id} is deleted: the next request with it is refused"));
            Ok(())
        }
    }
}

fn show(out: &Output, keys: &[RootKey], used: &HashMap<KeyId, LastUse>) -> Result<()> {
    let last = |key: &RootKey| used.get(&KeyId(key.id.0)).map(|last| rfc3339(last.at));
    let object = |key: &RootKey| {
        json!({
            "root_key_id": key.id,
            "account_id": key.account,
            "name": key.name,
            "start": key.start,
            "permissions": key.permissions,
            "created_at": rfc3339(key.created_at),
            "last_used_at": last(key),
        })
    };
    let objects: Vec<Value> = keys.iter().map(object).collect();
    out.object(&json!({ "root_keys": objects }))?;
    if keys.is_empty() {
        out.say("no root keys; `listmill admin root-key create --account …` makes one");
        return Ok(());
    }
    let head = ["ROOT KEY", "BEGINS", "NAME", "ACCOUNT", "CREATED", "LAST USED", "MAY DO"];
    let mut rows = vec![head.map(String::from).to_vec()];
    rows.extend(keys.iter().map(|key| {
        vec![
            key.id.to_string(),
            format!("{}…", key.start),
            key.name.clone(),
            key.account.to_string(),
            rfc3339(key.created_at),
            last(key).unwrap_or_else(|| String::from("never")),
            key.permissions.join(" "),
        ]
    }));
    out.table("", head.len(), &rows);
    Ok(())
}
