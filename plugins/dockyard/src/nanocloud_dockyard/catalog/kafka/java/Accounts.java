import java.io.IOException;
import java.io.Reader;
import java.nio.ByteBuffer;
import java.nio.charset.CharacterCodingException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Properties;
import java.util.Set;
import java.util.concurrent.ExecutionException;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.CreateTopicsOptions;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.admin.ScramCredentialInfo;
import org.apache.kafka.clients.admin.ScramMechanism;
import org.apache.kafka.clients.admin.UserScramCredentialAlteration;
import org.apache.kafka.clients.admin.UserScramCredentialDeletion;
import org.apache.kafka.clients.admin.UserScramCredentialUpsertion;
import org.apache.kafka.common.acl.AccessControlEntry;
import org.apache.kafka.common.acl.AccessControlEntryFilter;
import org.apache.kafka.common.acl.AclBinding;
import org.apache.kafka.common.acl.AclBindingFilter;
import org.apache.kafka.common.acl.AclOperation;
import org.apache.kafka.common.acl.AclPermissionType;
import org.apache.kafka.common.errors.ResourceNotFoundException;
import org.apache.kafka.common.errors.TopicExistsException;
import org.apache.kafka.common.resource.PatternType;
import org.apache.kafka.common.resource.ResourcePattern;
import org.apache.kafka.common.resource.ResourcePatternFilter;
import org.apache.kafka.common.resource.ResourceType;

/**
 * The accounts of dependants: create, verify or revoke one. Called by the binding commands with their own arguments,
 * USER PASSWORD_PATH [plain|tls [PREFIX]].
 *
 * An account has a SCRAM-SHA-512 credential, which the TLS listener asks for, and unless it may come over TLS only a
 * SCRAM-SHA-256 one, which the plain listener asks for. It owns the topics, consumer groups and transactional ids that
 * are named as itself or begin with PREFIX, which is USER and a dot unless it is given.
 */
public final class Accounts {
    private static final Path FACTS = Path.of("/dev/shm/nanocloud.properties");
    private static final int ITERATIONS = 8192;
    private static final int PASSWORD_LIMIT = 256;
    private static final int USAGE = 64;

    /** What the caller got wrong; the message is all it is told. */
    private static final class UsageException extends Exception {
        UsageException(String message) {
            super(message);
        }
    }

    private final String user;
    private final String password;
    private final boolean tls;
    private final String prefix;
    private final Properties facts = new Properties();

    private Accounts(String command, List<String> words) throws UsageException, IOException {
        if (words.size() < 2 || words.size() > 4) {
            throw new UsageException("usage: " + command + "_user USER PASSWORD_PATH [plain|tls [PREFIX]]");
        }
        user = words.get(0);
        if (!user.matches("[A-Za-z0-9_-]{1,64}")) {
            throw new UsageException("user '" + user + "' must be 1 to 64 letters, digits, _ and -");
        }
        if (user.equals("nanocloud") || user.equals("ANONYMOUS")) {
            throw new UsageException("user '" + user + "' belongs to the server");
        }
        String transport = words.size() > 2 ? words.get(2) : "plain";
        if (!transport.equals("plain") && !transport.equals("tls")) {
            throw new UsageException("transport '" + transport + "' must be plain or tls");
        }
        tls = transport.equals("tls");
        prefix = words.size() > 3 && !words.get(3).isEmpty() ? words.get(3) : user + ".";
        if (!prefix.matches("[A-Za-z0-9._-]{1,200}") || prefix.startsWith("__")) {
            throw new UsageException("prefix '" + prefix + "' must be 1 to 200 letters, digits, . _ and -, and not begin"
                    + " with __");
        }
        password = command.equals("revoke") ? "" : password(words.get(1));
        try (Reader reader = Files.newBufferedReader(FACTS)) {
            facts.load(reader);
        }
    }

    private static String password(String path) throws UsageException {
        byte[] content;
        try {
            content = Files.readAllBytes(Path.of(path));
        } catch (IOException exc) {
            throw new UsageException("the password cannot be read from " + path);
        }
        if (content.length == 0) {
            throw new UsageException("the password is empty");
        }
        if (content.length > PASSWORD_LIMIT) {
            throw new UsageException("the password is longer than " + PASSWORD_LIMIT + " bytes");
        }
        try {
            return StandardCharsets.UTF_8.newDecoder().decode(ByteBuffer.wrap(content)).toString();
        } catch (CharacterCodingException exc) {
            throw new UsageException("the password is not UTF-8");
        }
    }

    private void create() throws ExecutionException, InterruptedException {
        try (Admin admin = administrator()) {
            change(admin, credential(ScramMechanism.SCRAM_SHA_512));
            if (!tls) {
                change(admin, credential(ScramMechanism.SCRAM_SHA_256));
            } else if (credentials(admin).contains(ScramMechanism.SCRAM_SHA_256)) {
                change(admin, new UserScramCredentialDeletion(user, ScramMechanism.SCRAM_SHA_256));
            }

            Set<AclBinding> wanted = rights();
            Set<AclBinding> present = new HashSet<>(admin.describeAcls(all()).values().get());
            List<AclBindingFilter> surplus = new ArrayList<>();
            for (AclBinding right : present) {
                if (!wanted.contains(right)) {
                    surplus.add(right.toFilter());
                }
            }
            admin.deleteAcls(surplus).all().get();
            wanted.removeAll(present);
            admin.createAcls(wanted).all().get();
        }
    }

    /** Signs in as the account and asks whether it could make a topic of its own; makes none. */
    private void verify() throws ExecutionException, InterruptedException {
        try (Admin admin = Admin.create(account())) {
            NewTopic topic = new NewTopic(prefix + "verify", Optional.of(1), Optional.empty());
            admin.createTopics(List.of(topic), new CreateTopicsOptions().validateOnly(true)).all().get();
        } catch (ExecutionException exc) {
            if (!(exc.getCause() instanceof TopicExistsException)) {
                throw exc;
            }
        }
    }

    /** Open connections of the account stay, but every request is checked against the rights, which are gone. */
    private void revoke() throws ExecutionException, InterruptedException {
        try (Admin admin = administrator()) {
            admin.deleteAcls(List.of(all())).all().get();
            for (ScramMechanism mechanism : credentials(admin)) {
                change(admin, new UserScramCredentialDeletion(user, mechanism));
            }
        }
    }

    /** One request each: the server refuses two changes of one account together. */
    private static void change(Admin admin, UserScramCredentialAlteration change)
            throws ExecutionException, InterruptedException {
        admin.alterUserScramCredentials(List.of(change)).all().get();
    }

    private UserScramCredentialUpsertion credential(ScramMechanism mechanism) {
        return new UserScramCredentialUpsertion(user, new ScramCredentialInfo(mechanism, ITERATIONS), password);
    }

    private Set<ScramMechanism> credentials(Admin admin) throws ExecutionException, InterruptedException {
        Set<ScramMechanism> found = new HashSet<>();
        try {
            admin.describeUserScramCredentials(List.of(user)).description(user).get().credentialInfos()
                    .forEach(info -> found.add(info.mechanism()));
        } catch (ExecutionException exc) {
            if (!(exc.getCause() instanceof ResourceNotFoundException)) {
                throw exc;
            }
        }
        return found;
    }

    private Set<AclBinding> rights() {
        AccessControlEntry entry =
                new AccessControlEntry("User:" + user, "*", AclOperation.ALL, AclPermissionType.ALLOW);
        Set<AclBinding> rights = new HashSet<>();
        for (ResourceType type : List.of(ResourceType.TOPIC, ResourceType.GROUP, ResourceType.TRANSACTIONAL_ID)) {
            rights.add(new AclBinding(new ResourcePattern(type, user, PatternType.LITERAL), entry));
            rights.add(new AclBinding(new ResourcePattern(type, prefix, PatternType.PREFIXED), entry));
        }
        return rights;
    }

    private AclBindingFilter all() {
        return new AclBindingFilter(
                ResourcePatternFilter.ANY,
                new AccessControlEntryFilter("User:" + user, null, AclOperation.ANY, AclPermissionType.ANY));
    }

    private Admin administrator() {
        return Admin.create(settings("127.0.0.1:19092", "SASL_PLAINTEXT", "PLAIN",
                login("plain.PlainLoginModule", "nanocloud", facts.getProperty("password"))));
    }

    private Map<String, Object> account() {
        String login = login("scram.ScramLoginModule", user, password);
        if (!tls) {
            return settings("localhost:" + facts.getProperty("plain"), "SASL_PLAINTEXT", "SCRAM-SHA-256", login);
        }
        Map<String, Object> settings =
                settings("localhost:" + facts.getProperty("tls"), "SASL_SSL", "SCRAM-SHA-512", login);
        settings.put("ssl.truststore.type", "PEM");
        settings.put("ssl.truststore.location", facts.getProperty("ca"));
        return settings;
    }

    private static Map<String, Object> settings(String server, String protocol, String mechanism, String login) {
        Map<String, Object> settings = new HashMap<>();
        settings.put("bootstrap.servers", server);
        settings.put("security.protocol", protocol);
        settings.put("sasl.mechanism", mechanism);
        settings.put("sasl.jaas.config", login);
        settings.put("default.api.timeout.ms", 30000);
        settings.put("enable.metrics.push", false);
        return settings;
    }

    private static String login(String module, String user, String password) {
        StringBuilder quoted = new StringBuilder();
        for (char character : password.toCharArray()) {
            switch (character) {
                case '\\', '"' -> quoted.append('\\').append(character);
                case '\n' -> quoted.append("\\n");
                case '\r' -> quoted.append("\\r");
                default -> quoted.append(character);
            }
        }
        return "org.apache.kafka.common.security." + module + " required username=\"" + user + "\" password=\""
                + quoted + "\";";
    }

    public static void main(String[] arguments) {
        String command = arguments[0];
        try {
            Accounts accounts = new Accounts(command, List.of(arguments).subList(1, arguments.length));
            switch (command) {
                case "create" -> accounts.create();
                case "verify" -> accounts.verify();
                case "revoke" -> accounts.revoke();
                default -> throw new UsageException("no command " + command);
            }
        } catch (UsageException exc) {
            System.err.println(command + "_user: " + exc.getMessage());
            System.exit(USAGE);
        } catch (ExecutionException exc) {
            System.err.println(command + "_user: " + exc.getCause().getMessage());
            System.exit(1);
        } catch (IOException | InterruptedException exc) {
            System.err.println(command + "_user: " + exc);
            System.exit(1);
        }
    }
}
