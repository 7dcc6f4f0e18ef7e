package calendar;

import org.springframework.beans.factory.annotation.Value;
import org.springframework.web.bind.annotation.GetMapping;
import org.springframework.web.bind.annotation.RestController;

@RestController
public class Greeting {

    @Value("${greeting:Hello World}")
    private String greeting;

    @GetMapping("/")
    public String greet() {
        return greeting;
    }
}
