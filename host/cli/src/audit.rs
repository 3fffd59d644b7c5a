//! `dormouse audit`: who asked for what, and what came of it.

use clap::{Args, Subcommand};
use reqwest::Method;

use crate::cli::Global;
use crate::client::Client;
use crate::failure::Outcome;
use crate::output::{Table, text};

#[derive(Debug, Subcommand)]
pub(crate) enum Audit {
    /// List the newest commands, those that were refused too
    #[command(
        after_help = "Examples:\n  dormouse audit list\n  dormouse audit list --action module.deploy --target shop\n  \
                            dormouse audit list --by 3f9c2a1b7e60 --after 2026-01-31T00:00:00Z -o jsonl"
    )]
    List(List),
}

#[derive(Debug, Args)]
pub(crate) struct List {
    /// Only by this key
    #[arg(long = "by", value_name = "KEY-ID")]
    by: Option<String>,

    /// Only this action, as run.cancel
    #[arg(long)]
    action: Option<String>,

    /// Only on this: a run's id, a module's name
    #[arg(long)]
    target: Option<String>,

    /// Only at this time or later
    #[arg(long, value_name = "TIME")]
    after: Option<String>,

    /// Only before this time
    #[arg(long, value_name = "TIME")]
    before: Option<String>,

    /// How many at most
    #[arg(long)]
    limit: Option<u32>,

    /// Go on after this one: the last id of the page before
    #[arg(long, value_name = "ID")]
    cursor: Option<String>,
}

impl Audit {
    pub(crate) async fn run(self, global: &Global) -> Outcome {
        let Audit::List(list) = self;
        let client = Client::new(global, None)?;
        let request = client
            .request(Method::GET, &["v1", "audit"])
            .query("key", list.by)
            .query("action", list.action)
            .query("target", list.target)
            .query("after", list.after)
            .query("before", list.before)
            .query("limit", list.limit)
            .query("cursor", list.cursor);
        let data = request.data().await?;
        global.output.write(&data, || {
            let mut table = Table::new(&[
                "record", "at", "who", "key", "from", "action", "target", "result", "detail",
            ]);
            for record in data.as_array().into_iter().flatten() {
                let members = [
                    "id", "at", "who", "key_id", "from", "action", "target", "result", "detail",
                ];
                table.row(members.map(|member| text(record, member)));
            }
            table.text("no command yet")
        })
    }
}
