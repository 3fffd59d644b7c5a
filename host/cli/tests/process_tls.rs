//! Bodies speak HTTPS: with whom the machine's certificate authorities vouch for, and with nobody else.

mod support;

use serde_json::json;
use support::guest;
use support::server::Server;
use support::witness::{LOCALHOST, STRANGER, Witness};

#[tokio::test(flavor = "multi_thread")]
async fn a_body_speaks_https_with_whom_the_operators_authorities_vouch_for() {
    let witness = Witness::start_tls().await;
    let port = witness.host().rsplit(':').next().expect("a port").to_owned();
    for (trusted, name, outcome) in [
        (LOCALHOST, "localhost", Ok(())),
        (STRANGER, "localhost", Err("UnknownIssuer")),
        // The certificate is for the name, whatever the address is.
        (LOCALHOST, "127.0.0.1", Err("not valid for name")),
    ] {
        let config = format!(
            "[modules.kill]\nhttp = [\"https://{name}:{port}\"]\nconfig = {{ sink = \"https://{name}:{port}/\" }}\n"
        );
        let mut server = Server::prepare(&config, &[]);
        let file = server.dir().join("authorities.pem");
        std::fs::write(&file, trusted).expect("written");
        let mut command = server.start_command();
        command.env("SSL_CERT_FILE", &file).env_remove("SSL_CERT_DIR");
        server.boot_by(command).await;
        server.deploy("kill", guest("kill")).await;
        let before = witness.count();
        let plan = json!({ "steps": 1, "sleep_ms": 1 });
        let run = server.invoke("kill/kill", &plan).await;
        let ended = server.ended(&run).await;
        match outcome {
            Ok(()) => {
                assert_eq!(ended["status"], "Completed", "{ended:#}");
                assert_eq!(witness.count(), before + 1);
            }
            Err(words) => {
                assert_eq!(ended["status"], "Failed", "{ended:#}");
                let message = ended["error"]["message"].as_str().unwrap_or_default();
                assert!(message.contains("certificate"), "{message}");
                let log = server.log();
                assert!(log.contains(words), "{words}: {log}");
                assert_eq!(witness.count(), before, "nothing was said to a stranger");
            }
        }
    }
}
