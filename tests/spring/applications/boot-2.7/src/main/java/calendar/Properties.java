package calendar;

import org.springframework.core.env.Environment;
import org.springframework.web.bind.annotation.GetMapping;
import org.springframework.web.bind.annotation.RequestParam;
import org.springframework.web.bind.annotation.RestController;

/** What the application reads when it asks for a property by its name. */
@RestController
public class Properties {

    private final Environment environment;

    public Properties(Environment environment) {
        this.environment = environment;
    }

    @GetMapping("/property")
    public String property(@RequestParam("name") String name) {
        return environment.getProperty(name, "");
    }
}
