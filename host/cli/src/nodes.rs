//! `dormouse nodes`: list, drain.

use clap::Subcommand;
use reqwest::Method;

use crate::cli::Global;
use crate::client::Client;
use crate::failure::Outcome;
use crate::output::Table;

#[derive(Debug, Subcommand)]
pub(crate) enum Nodes {
    /// List the nodes and what they do
    List,
    /// Have a node hand its runs to the others and end, before its machine is upgraded
    Drain {
        /// Its name as `nodes list` shows it, or enough of its beginning
        node: String,
    },
}

impl Nodes {
    pub(crate) async fn run(self, global: &Global) -> Outcome {
        let client = Client::new(global, None)?;
        let data = match self {
            Nodes::List => client.get(&["v1", "nodes"]).await?,
            Nodes::Drain { node } => {
                let node = client
                    .request(Method::POST, &["v1", "nodes", &node, "drain"])
                    .data()
                    .await?;
                serde_json::Value::Array(vec![node])
            }
        };
        global.output.write(&data, || {
            // The columns are what the server tells of a node.
            let nodes = data.as_array().map(Vec::as_slice).unwrap_or_default();
            let members: Vec<&str> = nodes
                .first()
                .and_then(|node| node.as_object())
                .into_iter()
                .flatten()
                .map(|(member, _)| member.as_str())
                .collect();
            let headings: Vec<String> = members.iter().map(|member| member.replace('_', " ")).collect();
            let mut table = Table::new(&headings.iter().map(String::as_str).collect::<Vec<_>>());
            for node in nodes {
                table.row(members.iter().map(|member| crate::output::text(node, member)));
            }
            table.text("no nodes")
        })
    }
}
