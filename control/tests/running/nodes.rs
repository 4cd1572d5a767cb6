//! What a node's state does to its members.

use crate::common::{CONFIG, Sluice};

#[test]
fn of_a_member_and_its_node_the_stricter_state_holds() {
    let with_node = |state: &str| format!("{CONFIG}nodes: {{one: {{address: 10.1.0.12, state: {state}}}}}\n");
    let sluice = Sluice::start(&with_node("offline"), 1);
    assert_eq!(sluice.states(), ["web 10.1.0.11:8080 enabled", "web 10.1.0.12:8080 offline"]);
    assert_eq!(sluice.put("/v1/config", &with_node("enabled")).status, 200);
    assert_eq!(sluice.states()[1], "web 10.1.0.12:8080 disabled", "which is what the member's own state is");
    let said = sluice.patch("/v1/pools/web/members/10.1.0.12:8080", r#"{"state": "offline"}"#);
    assert_eq!(said.status, 200);
    assert_eq!(sluice.put("/v1/config", &with_node("disabled")).status, 200);
    assert_eq!(sluice.states()[1], "web 10.1.0.12:8080 disabled", "the file states the member's again");
    sluice.end();
}
