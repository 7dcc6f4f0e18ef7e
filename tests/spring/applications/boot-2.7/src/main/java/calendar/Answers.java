package calendar;

import java.util.concurrent.Callable;

import org.springframework.http.ResponseEntity;

/** What came of a call: the other's answer, or status 502 and every exception from the outermost inwards. */
final class Answers {

    private Answers() {
    }

    static ResponseEntity<String> of(Callable<String> call) {
        try {
            return ResponseEntity.ok(call.call());
        } catch (Exception error) {
            StringBuilder said = new StringBuilder();
            for (Throwable one = error; one != null; one = one.getCause()) {
                said.append(one.getClass().getName()).append(": ").append(one.getMessage()).append('\n');
            }
            return ResponseEntity.status(502).body(said.toString());
        }
    }
}
