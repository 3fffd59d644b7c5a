//! `dormouse nodes`: list.

use clap::Subcommand;

use crate::cli::Global;
use crate::client::Client;
use crate::failure::Outcome;
use crate::output::Table;

#[derive(Debug, Subcommand)]
pub(crate) enum Nodes {
    /// List the nodes and what they do
    List,
}

impl Nodes {
    pub(crate) async fn run(self, global: &Global) -> Outcome {
        let client = Client::new(global, None)?;
        let Nodes::List = self;
        let data = client.get(&["v1", "nodes"]).await?;
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
