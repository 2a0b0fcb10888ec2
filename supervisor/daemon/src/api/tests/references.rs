use super::*;

/// A bundle whose one variable has that value.
async fn referring(world: &World, name: &str, value: &str) -> Answer {
    let spec = json!({ "image": "registry.example/web:1", "env": [{"name": "URL", "value": value}] });
    world.post(BUNDLES, json!({ "metadata": { "name": name }, "spec": spec })).await
}

async fn database(world: &World) {
    let spec = json!({ "image": "registry.example/db:1", "ports": [{"name": "sql", "containerPort": 5432}] });
    world.post(BUNDLES, json!({ "metadata": { "name": "database" }, "spec": spec })).await.created();
    let data = json!({ "user": "d2Vi", "password": "aHVudGVyMg==" });
    world.post(SECRETS, json!({ "metadata": { "name": "login" }, "data": data })).await.created();
}

fn cause(answer: &Answer) -> (u16, &str, &str) {
    let cause = &answer.body["details"]["causes"][0];
    (answer.code, cause["field"].as_str().unwrap_or_default(), cause["message"].as_str().unwrap_or_default())
}

#[tokio::test]
async fn a_reference_that_leads_somewhere_is_taken_and_stays_as_it_is_written() {
    let world = World::new();
    database(&world).await;
    let url = "${{secret.login.user}}:${{secret.login.password}}@${{database.HOST}}:${{database.PORT.sql}}";
    let web = referring(&world, "web", url).await.created();
    assert_eq!(web["spec"]["env"][0]["value"], url);
    referring(&world, "self", "${{self.HOST}}").await.created();
}

#[tokio::test]
async fn a_reference_that_leads_nowhere_is_refused_by_its_field_with_what_was_meant() {
    let world = World::new();
    database(&world).await;
    let cases = [
        ("${{databse.HOST}}", "Bundle databse is not there; did you mean `database`?"),
        ("${{database.PORT.sqll}}", "Bundle database declares no port sqll; did you mean `sql`?"),
        ("${{secret.logins.user}}", "Secret logins is not there; did you mean `login`?"),
        ("${{secret.login.pasword}}", "Secret login has no key pasword; did you mean `password`?"),
        ("${{secret.login}}", "Secret login has several keys; say which"),
        ("${{self.PORT}}", "Bundle self declares no port; add it to spec.ports of self"),
        ("${{nothing.at.all}}", "is no reference: write NAME.HOST"),
        ("${{database.HOST", "begins a reference that no `}}` ends"),
    ];
    for (value, expected) in cases {
        let answer = referring(&world, "self", value).await;
        let (code, field, message) = cause(&answer);
        assert_eq!((code, field), (422, "spec.env[0].value"), "{value}: {}", answer.body);
        assert!(message.contains(expected), "{value}: {message}");
    }
    assert_eq!(world.get(&format!("{BUNDLES}/self")).await.code, 404);
}

#[tokio::test]
async fn what_is_left_of_a_removed_bundle_does_not_stand_in_the_way_of_other_changes() {
    let world = World::new();
    database(&world).await;
    referring(&world, "web", "${{database.HOST}}").await.created();
    world.delete(&format!("{BUNDLES}/database")).await.ok();
    let path = format!("{BUNDLES}/web");
    world.merge(&path, json!({"spec": {"start": false}})).await.ok();
    let more = json!([{"name": "A", "value": "${{database.HOST}}"}, {"name": "B", "value": "${{database.PORT}}"}]);
    let answer = world.merge(&path, json!({"spec": {"env": more}})).await;
    assert_eq!(cause(&answer).1, "spec.env[1].value");
}
